defmodule Mix.Tasks.Ledger.Migrate do
  @shortdoc "Brings the database up to date with priv/migrations"
  @moduledoc @shortdoc
  use Mix.Task

  @requirements ["app.config"]

  @impl true
  def run(_arguments) do
    db = Ledger.Database.connect!()
    Ledger.Database.query!(db, "CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY)")
    done = List.flatten(Ledger.Database.query!(db, "SELECT name FROM migrations"))

    for path <- Path.wildcard("priv/migrations/*.sql"),
        (name = Path.basename(path)) not in done do
      sql = String.trim_trailing(File.read!(path))
      name = Ledger.Database.quoted(name)

      Ledger.Database.query!(
        db,
        "BEGIN; #{sql}; INSERT INTO migrations (name) VALUES (#{name}); COMMIT"
      )

      Mix.shell().info("migrated #{name}")
    end
  end
end
