import Config

config :hello, stage: "production"
