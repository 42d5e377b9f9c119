defmodule Ledger.Counter do
  @moduledoc "Counts in Redis, if there is one (RESP over TCP)."

  @doc "Adds one to a counter; its value, or nil without Redis."
  def count(name) do
    with host when is_binary(host) <- Application.get_env(:ledger, :redis) do
      options = [:binary, packet: :line, active: false]
      {:ok, socket} = :gen_tcp.connect(to_charlist(host), 6379, options)
      :ok = :gen_tcp.send(socket, "INCR #{name}\r\n")
      {:ok, ":" <> number} = :gen_tcp.recv(socket, 0, 5000)
      :gen_tcp.close(socket)
      number |> String.trim() |> String.to_integer()
    end
  end
end
