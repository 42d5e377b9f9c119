defmodule Ledger.MixProject do
  use Mix.Project

  def project do
    [
      app: :ledger,
      version: "0.1.0",
      elixir: "~> 1.14",
      start_permanent: Mix.env() in [:staging, :prod],
      deps: deps()
    ]
  end

  def application do
    [extra_applications: [:logger]]
  end

  defp deps do
    [
      # Its application asks for xmpp, which it needs for SCRAM alone; the database here takes MD5. Its rebar.config
      # asks rebar3 for a plugin that Debian does not carry: the same compiler call, spelt out.
      {:p1_pgsql, "~> 1.1", runtime: false, compile: p1_pgsql()},
      {:nimble_parsec, "~> 1.4", only: :test, runtime: false}
    ]
  end

  defp p1_pgsql do
    "sh -ec 'mkdir -p ebin; erlc +debug_info -o ebin src/*.erl; " <>
      "cp src/p1_pgsql.app.src ebin/p1_pgsql.app'"
  end
end
