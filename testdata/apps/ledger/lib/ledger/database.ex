defmodule Ledger.Database do
  @moduledoc "PostgreSQL through p1_pgsql."

  defmodule Error do
    defexception [:message]
  end

  @doc "Connects to the app's database, or to another one."
  def connect!(database \\ Application.fetch_env!(:ledger, :database)) do
    text = fn key -> to_charlist(Application.fetch_env!(:ledger, key)) end

    {:ok, db} =
      :pgsql.connect(
        host: text.(:host),
        user: text.(:user),
        password: text.(:password),
        database: to_charlist(database),
        as_binary: true
      )

    db
  end

  @doc "Runs statements; the rows of the last one, each value as text."
  def query!(db, sql) do
    {:ok, results} = :pgsql.squery(db, sql)

    Enum.reduce(results, [], fn
      {:error, about}, _rows -> raise Error, message: inspect(about)
      {_command, _columns, rows}, _rows -> rows
      _command, _rows -> []
    end)
  end

  @doc "A text as a literal."
  def quoted(text), do: "'" <> String.replace(text, "'", "''") <> "'"
end
