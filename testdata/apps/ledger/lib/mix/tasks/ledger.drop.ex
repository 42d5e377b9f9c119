defmodule Mix.Tasks.Ledger.Drop do
  @shortdoc "Drops the database, if it is there"
  @moduledoc @shortdoc
  use Mix.Task

  @requirements ["app.config"]

  @impl true
  def run(_arguments) do
    name = Application.fetch_env!(:ledger, :database)

    Ledger.Database.query!(
      Ledger.Database.connect!("postgres"),
      "DROP DATABASE IF EXISTS #{name}"
    )

    Mix.shell().info("dropped #{name}")
  end
end
