-- An app is one product that uses this deployment. Its definition is code (apps/*.ts); this row carries what the
-- database itself needs of it, and is brought up to date by `darkroom migrate`.
create table apps (
  id text primary key check (id ~ '^[a-z0-9][a-z0-9-]{0,39}$'),
  name text not null,
  -- Credits given once to each new user.
  signup_grant bigint not null check (signup_grant >= 0),
  -- Credits that each user may spend a day before the balance is touched.
  daily_allowance bigint not null check (daily_allowance >= 0),
  updated_at timestamptz not null default now()
);

-- A key belongs to one app and speaks for all of its users. Only the hash is kept: the secret has 256 random bits,
-- so a fast hash cannot be searched.
create table api_keys (
  id text primary key check (id ~ '^[0-9a-z]{12}$'),
  app_id text not null references apps,
  name text not null check (length(name) between 1 and 100),
  secret_hash bytea not null check (length(secret_hash) = 32),
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz
);
