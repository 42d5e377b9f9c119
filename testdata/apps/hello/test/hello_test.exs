defmodule HelloTest do
  use ExUnit.Case, async: true

  test "the root page says what was built" do
    assert %{app: "hello", env: :test, stage: "test", version: "0.1.0"} = Hello.Router.route("/")
  end

  test "an unknown page is a 404" do
    assert IO.iodata_to_binary(Hello.Render.response(Hello.Router.route("/nowhere"))) =~ "HTTP/1.1 404 Not Found"
  end

  test "the generated modules add up" do
    assert Hello.Numbers.sum() == 15
  end

  test "the endpoint answers on a socket" do
    start_supervised!({Hello.Endpoint, port: 0})
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, Hello.Endpoint.port(), [:binary, active: false])
    :ok = :gen_tcp.send(socket, "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert {:ok, answer} = :gen_tcp.recv(socket, 0, 5_000)
    assert answer =~ "200 OK"
  end
end
