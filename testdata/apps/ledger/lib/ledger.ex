defmodule Ledger do
  @moduledoc "Accounts in a database, and transfers between them that happen whole or not at all."

  alias Ledger.Database

  @doc "Opens an account with a balance."
  def open(db, name, balance \\ 0) do
    name = Database.quoted(name)
    Database.query!(db, "INSERT INTO accounts (name, balance) VALUES (#{name}, #{balance})")
    :ok
  end

  @doc "The balance of an account; nil if there is none."
  def balance(db, name) do
    case Database.query!(db, "SELECT balance FROM accounts WHERE name = #{Database.quoted(name)}") do
      [[balance]] -> String.to_integer(balance)
      [] -> nil
    end
  end

  @doc "Moves an amount. `{:error, reason}` if the database refuses; then nothing has changed."
  def transfer(db, from, to, amount) when amount > 0 do
    Database.query!(db, """
    BEGIN;
    UPDATE accounts SET balance = balance + #{amount} WHERE name = #{Database.quoted(to)};
    UPDATE accounts SET balance = balance - #{amount} WHERE name = #{Database.quoted(from)};
    COMMIT
    """)

    Ledger.Counter.count("transfers")
    :ok
  rescue
    error in Database.Error -> {:error, error.message}
  end
end
