import type { Fields } from "./field.ts";

/** The train inputs of the trainable models, from their published schemas. */
export const FLUX_TRAINING: Fields = {
  input_images: { type: "string", format: "uri", required: true, description: "A zip of at least ten images" },
  trigger_word: { type: "string", default: "TOK" },
  autocaption: { type: "boolean", default: true },
  autocaption_prefix: { type: "string" },
  autocaption_suffix: { type: "string" },
  steps: { type: "integer", default: 1000, minimum: 3, maximum: 6000 },
  learning_rate: { type: "number", default: 0.0004 },
  batch_size: { type: "integer", default: 1 },
  resolution: { type: "string", default: "512,768,1024" },
  lora_rank: { type: "integer", default: 16, minimum: 1, maximum: 128 },
  caption_dropout_rate: { type: "number", default: 0.05, minimum: 0, maximum: 1 },
  optimizer: { type: "string", default: "adamw8bit" },
  cache_latents_to_disk: { type: "boolean", default: false },
  layers_to_optimize_regex: { type: "string" },
  gradient_checkpointing: { type: "boolean", default: false },
  hf_repo_id: { type: "string" },
  hf_token: { type: "string" },
};

/** Callers have been seen to send both `steps` and `training_steps`; which is real is not known, so both are. */
export const FAST_FLUX_TRAINING: Fields = {
  input_images: { type: "string", format: "uri", required: true },
  trigger_word: { type: "string", default: "TOK" },
  lora_type: { type: "string", enum: ["subject", "style"], default: "subject" },
  training_steps: { type: "integer", minimum: 10, maximum: 6000 },
  steps: { type: "integer", default: 1000, minimum: 10, maximum: 6000 },
};

export const SDXL_TRAINING: Fields = {
  input_images: { type: "string", format: "uri", required: true },
  seed: { type: "integer" },
  resolution: { type: "integer", default: 768 },
  train_batch_size: { type: "integer", default: 4 },
  num_train_epochs: { type: "integer", default: 4000 },
  max_train_steps: { type: "integer", default: 1000 },
  is_lora: { type: "boolean", default: true },
  unet_learning_rate: { type: "number", default: 0.000001 },
  ti_lr: { type: "number", default: 0.0003 },
  lora_lr: { type: "number", default: 0.0001 },
  lora_rank: { type: "integer", default: 32 },
  lr_scheduler: { type: "string", enum: ["constant", "linear"], default: "constant" },
  lr_warmup_steps: { type: "integer", default: 100 },
  token_string: { type: "string", default: "TOK" },
  caption_prefix: { type: "string", default: "a photo of TOK, " },
  mask_target_prompts: { type: "string" },
  crop_based_on_salience: { type: "boolean", default: true },
  use_face_detection_instead: { type: "boolean", default: false },
  clipseg_temperature: { type: "number", default: 1 },
  verbose: { type: "boolean", default: true },
  checkpointing_steps: { type: "integer", default: 999999 },
  input_images_filetype: { type: "string", enum: ["zip", "tar", "infer"], default: "infer" },
};
