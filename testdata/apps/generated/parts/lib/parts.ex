defprotocol Parts.Size do
  @fallback_to_any true
  def size(value)
end

defimpl Parts.Size, for: Any do
  defmacro __deriving__(module, struct, options) do
    IO.warn("derived for #{inspect(module)} by #{inspect(self())}", Macro.Env.stacktrace(__CALLER__))
    fields = map_size(struct) + length(options)

    quote do
      defimpl Parts.Size, for: unquote(module) do
        def size(_), do: unquote(fields)
      end
    end
  end

  def size(_), do: 0
end
