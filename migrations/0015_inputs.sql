-- A photo as models are to see it. Cameras note how they were held instead of turning the picture, and print shops work
-- in CMYK: what a person sees upright and in its colours, a model reads on its side or in none. The caller's file stays
-- as it came; this one, made from it, is what providers are given. Null: they are given the file itself.
alter table assets
  -- {"storageKey", "contentType", "bytes"}
  add column upright jsonb,
  add constraint assets_upright_check check (upright is null or role = 'input');
