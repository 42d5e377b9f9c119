import Config

config :hello, stage: "test", serve: false
