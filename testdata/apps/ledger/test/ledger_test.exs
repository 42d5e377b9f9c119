defmodule LedgerTest do
  use ExUnit.Case

  defmodule Amount do
    @moduledoc "Amounts as people write them: what `only: :test` in mix.exs is for."
    import NimbleParsec

    defparsec(:parse, integer(min: 1) |> ignore(string(" ")) |> ignore(string("EUR")))
  end

  setup do
    db = Ledger.Database.connect!()
    Ledger.Database.query!(db, "DELETE FROM accounts")
    %{db: db}
  end

  defp amount(text) do
    {:ok, [amount], "", _, _, _} = Amount.parse(text)
    amount
  end

  test "a transfer moves money", %{db: db} do
    :ok = Ledger.open(db, "ann", amount("10 EUR"))
    :ok = Ledger.open(db, "o'bob")
    assert Ledger.transfer(db, "ann", "o'bob", amount("7 EUR")) == :ok
    assert {Ledger.balance(db, "ann"), Ledger.balance(db, "o'bob")} == {3, 7}
  end

  test "a transfer that cannot be leaves everything as it was", %{db: db} do
    :ok = Ledger.open(db, "ann", 1)
    :ok = Ledger.open(db, "bob")
    assert {:error, reason} = Ledger.transfer(db, "ann", "bob", 2)
    assert reason =~ "no_debts"
    assert {Ledger.balance(db, "ann"), Ledger.balance(db, "bob")} == {1, 0}
  end

  test "there is no balance without an account", %{db: db} do
    assert Ledger.balance(db, "nobody") == nil
  end

  test "transfers are counted where there is Redis" do
    if Application.get_env(:ledger, :redis) do
      first = Ledger.Counter.count("test")
      assert Ledger.Counter.count("test") == first + 1
    else
      assert Ledger.Counter.count("test") == nil
    end
  end
end
