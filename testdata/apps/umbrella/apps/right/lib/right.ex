defmodule Right do
  @moduledoc "The other half, which asks the first."
  require SharedParts

  SharedParts.named("right")

  @doc "One line that needs every part of the umbrella."
  def report, do: "#{Left.name()} #{name()} #{Left.twice(21)} #{Application.fetch_env!(:right, :env)}"
end
