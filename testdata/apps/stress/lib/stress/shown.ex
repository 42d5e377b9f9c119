defprotocol Stress.Shown do
  @fallback_to_any true
  def shown(value)
end

defimpl Stress.Shown, for: Any do
  def shown(value), do: inspect(value)
end
