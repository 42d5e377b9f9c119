defmodule Left do
  @moduledoc "Half of the pair, with a function in C."
  require SharedParts
  @on_load :load

  SharedParts.named("left")

  @doc false
  def load, do: :left |> :code.priv_dir() |> :filename.join(~c"left") |> :erlang.load_nif(0)

  @doc "Twice the number."
  def twice(_number), do: :erlang.nif_error(:not_loaded)
end
