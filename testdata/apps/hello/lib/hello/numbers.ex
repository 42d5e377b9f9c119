# Several modules from one file: none of them is written out.
for {name, value} <- [One: 1, Two: 2, Three: 3, Four: 4, Five: 5] do
  defmodule Module.concat(Hello.Numbers, name) do
    @moduledoc false
    @value value
    def value, do: @value
  end
end

defmodule Hello.Numbers do
  @moduledoc "The generated modules, summed."
  def sum, do: Enum.sum(for name <- ~w(One Two Three Four Five)a, do: Module.concat(__MODULE__, name).value())
end
