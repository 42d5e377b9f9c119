import Config

config :right, env: config_env()
