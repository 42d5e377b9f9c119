defprotocol Hello.Render do
  @moduledoc "Anything that can go out on a socket."
  @doc "The bytes."
  def response(value)
end

defimpl Hello.Render, for: Hello.Response do
  def response(%{status: status, body: body, type: type}) do
    reason = Hello.Status.reason(status)

    [
      "HTTP/1.1 #{status} #{reason}\r\n",
      "content-type: #{type}\r\ncontent-length: #{IO.iodata_length(body)}\r\nconnection: close\r\n\r\n",
      body
    ]
  end
end

defimpl Hello.Render, for: BitString do
  def response(text), do: Hello.Render.response(%Hello.Response{status: 200, body: text})
end

defimpl Hello.Render, for: Map do
  def response(map) do
    pairs = map |> Enum.sort() |> Enum.map_join(",", fn {key, value} -> ~s("#{key}":"#{value}") end)
    Hello.Render.response(%Hello.Response{status: 200, type: "application/json", body: "{" <> pairs <> "}\n"})
  end
end
