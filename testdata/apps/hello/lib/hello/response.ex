defmodule Hello.Response do
  @moduledoc "What the endpoint answers, before it is text."
  @enforce_keys [:status, :body]
  defstruct [:status, :body, type: "text/plain; charset=utf-8"]
end
