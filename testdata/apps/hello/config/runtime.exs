import Config

config :hello,
  port: String.to_integer(System.get_env("PORT", "4000")),
  bind: System.get_env("BIND", "0.0.0.0")
