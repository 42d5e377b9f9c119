defmodule Stress.Macros do
  @moduledoc "Variables with numbers that the compiler makes up, as LiveView's comprehensions and Ecto's queries have them."

  defmacro doubled(list) do
    var = Macro.unique_var(:item, Stress.Elsewhere)

    code =
      quote do
        for unquote(var) <- unquote(list), do: unquote(var) * 2
      end

    # LiveView takes a fingerprint of such code into what it compiles.
    print = :erlang.md5(:erlang.term_to_binary(code))

    quote do
      {unquote(print), unquote(code)}
    end
  end
end
