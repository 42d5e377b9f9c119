defmodule SharedParts do
  @moduledoc "A path dependency that lives outside `apps/`. Its macro makes its users depend on it while compiling."

  defmacro named(name) do
    quote do
      def name, do: unquote(name)
    end
  end
end
