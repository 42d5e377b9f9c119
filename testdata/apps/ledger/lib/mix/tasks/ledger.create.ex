defmodule Mix.Tasks.Ledger.Create do
  @shortdoc "Creates the database"
  @moduledoc @shortdoc
  use Mix.Task

  @requirements ["app.config"]

  @impl true
  def run(_arguments) do
    name = Application.fetch_env!(:ledger, :database)
    Ledger.Database.query!(Ledger.Database.connect!("postgres"), "CREATE DATABASE #{name}")
    Mix.shell().info("created #{name}")
  end
end
