import Config

config :ledger, database: "ledger_#{config_env()}"
