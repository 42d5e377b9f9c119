import Config

config :hello, stage: "development", greeting: "hello"

if config_env() in [:test, :staging, :prod] do
  import_config "#{config_env()}.exs"
end
