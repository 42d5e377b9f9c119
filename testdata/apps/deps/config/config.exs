import Config

config :parts, env: config_env()
