defmodule Generated.Dsl do
  @moduledoc "Sections of a module that become functions and modules once its body is known."

  defmacro __using__(_) do
    IO.warn("used in #{inspect(__CALLER__.module)}: #{inspect(make_ref())}", Macro.Env.stacktrace(__CALLER__))

    quote do
      import Generated.Dsl
      Module.register_attribute(__MODULE__, :entries, accumulate: true)
      @on_definition Generated.Dsl
      @before_compile Generated.Dsl
      @after_compile Generated.Dsl
    end
  end

  defmacro entry(name, value) do
    quote bind_quoted: [name: name, value: value] do
      @entries {name, value}
      def unquote(name)(), do: unquote(Macro.escape(value))
    end
  end

  def __on_definition__(env, kind, name, args, _guards, _body) do
    count = length(args)
    :persistent_term.put({__MODULE__, env.module}, {kind, name, count})
  end

  defmacro __before_compile__(env) do
    entries = Module.get_attribute(env.module, :entries)
    last = :persistent_term.get({__MODULE__, env.module}, nil)
    Module.create(Module.concat(env.module, Table), table(entries, last), Macro.Env.location(env))
    quote do: def(entries, do: unquote(Macro.escape(entries)))
  end

  def __after_compile__(env, bytecode) when is_binary(bytecode) do
    table = :ets.new(:seen, [:set])
    :ets.insert(table, for(n <- 1..50, do: {{env.module, n}, n}))
    50 = :ets.info(table, :size)
  end

  defp table(entries, last) do
    clauses = for {name, value} <- entries, do: quote(do: def(value(unquote(name)), do: unquote(Macro.escape(value))))
    [quote(do: def(last, do: unquote(Macro.escape(last)))) | clauses]
  end
end
