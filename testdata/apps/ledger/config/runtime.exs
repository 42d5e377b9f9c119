import Config

config :ledger,
  host: System.get_env("PGHOST", "localhost"),
  user: System.get_env("PGUSER", "postgres"),
  password: System.get_env("PGPASSWORD", ""),
  redis: System.get_env("REDIS_HOST")
