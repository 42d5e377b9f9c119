defmodule Generated do
  def main, do: IO.puts(length(modules()))

  def modules do
    {:ok, modules} = :application.get_key(:generated, :modules)
    modules
  end
end
