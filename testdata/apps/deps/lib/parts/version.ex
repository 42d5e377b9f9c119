defmodule Parts.Version do
  @moduledoc false
  import NimbleParsec

  defparsec(:parse, integer(min: 1) |> ignore(string(".")) |> integer(min: 1) |> eos())
end
