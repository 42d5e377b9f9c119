defmodule Hello.Table do
  @moduledoc "A macro that writes one function clause for each row of a table."

  defmacro table(name, rows, default) do
    clauses =
      for {key, value} <- rows do
        quote do
          def unquote(name)(unquote(key)), do: unquote(value)
        end
      end

    quote do
      unquote_splicing(clauses)
      def unquote(name)(_), do: unquote(default)
    end
  end
end
