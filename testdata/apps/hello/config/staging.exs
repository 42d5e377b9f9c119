import Config

config :hello, stage: "rehearsal"
