defmodule Stamp do
  @moduledoc "The git dependency of `testdata/apps/deps`."
  def text, do: "stamped"
end
