"""What makes the pictures: a diffusion model, or a grey square for trying the handler without a GPU."""

import io
import os
import struct
import urllib.request
import zlib

CHECKER = "Falconsai/nsfw_image_detection"  # neither FLUX.1 nor SDXL has a checker in diffusers
MOST_NSFW = 0.85  # of 1; what is above is held back


def diffusion():
    """Loads MODEL once, at the start of the worker; the black-forest-labs and stabilityai models of diffusers."""
    import torch
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image
    from diffusers.utils import load_image
    from transformers import pipeline

    classify = pipeline("image-classification", model=CHECKER, device="cuda")

    name = os.environ.get("MODEL", "black-forest-labs/FLUX.1-dev")
    from_text = AutoPipelineForText2Image.from_pretrained(name, torch_dtype=torch.bfloat16).to("cuda")
    from_image = AutoPipelineForImage2Image.from_pipe(from_text)
    knows_negative = "FLUX" not in name

    def paint(order):
        extension = order.get("format", "png")
        wanted = {
            "prompt": order["prompt"],
            "num_inference_steps": order.get("steps", 28),
            "guidance_scale": order.get("guidance", 3.5),
            "generator": torch.Generator("cuda").manual_seed(order.get("seed", 0)),
        }
        if knows_negative and order.get("negative_prompt"):
            wanted["negative_prompt"] = order["negative_prompt"]
        if order.get("lora_weights"):
            from_text.load_lora_weights(_fetched(order["lora_weights"], "/tmp/lora.safetensors"), adapter_name="lora")
            from_text.set_adapters(["lora"], [order.get("lora_scale", 1.0)])
        try:
            if order.get("image"):
                image = from_image(image=load_image(order["image"]), **wanted).images[0]
            else:
                size = {"width": order.get("width", 1024), "height": order.get("height", 1024)}
                image = from_text(**wanted, **size).images[0]
        finally:
            if order.get("lora_weights"):
                from_text.unload_lora_weights()
        file = io.BytesIO()
        image = checked(image, classify, order)
        image.save(file, {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[extension], quality=order.get("quality", 90))
        return [(extension, file.getvalue())]

    return paint


def checked(image, classify, order):
    """The image. Raises for what is to be held back, in words by which Darkroom knows a refused content."""
    if not order.get("safety", True):
        return image
    marked = max((each["score"] for each in classify(image) if each["label"] == "nsfw"), default=0.0)
    if marked > MOST_NSFW:
        raise ValueError("NSFW content detected: the safety checker held the picture back")
    return image


def _fetched(url, path):
    urllib.request.urlretrieve(url, path)
    return path


def square(order):
    """A grey PNG of the seed's shade. `die`: ends the process as a lost worker does."""
    if order.get("die"):
        os._exit(137)
    side, shade = 64, order.get("seed", 0) % 256
    rows = (b"\x00" + bytes([shade]) * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return [("png", png)]
