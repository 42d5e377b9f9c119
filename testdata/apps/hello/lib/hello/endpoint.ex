defmodule Hello.Endpoint do
  @moduledoc "HTTP on `:gen_tcp`: one process listens, one process answers each connection."
  use GenServer
  require Logger

  def start_link(opts), do: GenServer.start_link(__MODULE__, opts, name: __MODULE__)

  @doc "The port that it listens on: useful when it was asked for port 0."
  def port, do: GenServer.call(__MODULE__, :port)

  @impl true
  def init(opts) do
    port = Keyword.get(opts, :port, Application.fetch_env!(:hello, :port))
    {:ok, ip} = :inet.parse_address(to_charlist(Application.get_env(:hello, :bind, "127.0.0.1")))
    {:ok, socket} = :gen_tcp.listen(port, [:binary, packet: :http_bin, active: false, reuseaddr: true, ip: ip])
    {:ok, port} = :inet.port(socket)
    Logger.info("hello listens on port #{port}")
    spawn_link(fn -> accept(socket) end)
    {:ok, %{socket: socket, port: port}}
  end

  @impl true
  def handle_call(:port, _from, state), do: {:reply, state.port, state}

  defp accept(socket) do
    {:ok, client} = :gen_tcp.accept(socket)

    pid =
      spawn(fn ->
        receive do
          :yours -> answer(client)
        after
          5_000 -> :gen_tcp.close(client)
        end
      end)

    :ok = :gen_tcp.controlling_process(client, pid)
    send(pid, :yours)
    accept(socket)
  end

  defp answer(client) do
    case request(client) do
      {:ok, path} -> :gen_tcp.send(client, Hello.Render.response(Hello.Router.route(path)))
      :error -> :ok
    end

    :gen_tcp.close(client)
  end

  defp request(client) do
    with {:ok, {:http_request, _method, {:abs_path, path}, _version}} <- :gen_tcp.recv(client, 0, 5_000),
         :ok <- headers(client) do
      {:ok, path}
    else
      _ -> :error
    end
  end

  defp headers(client) do
    case :gen_tcp.recv(client, 0, 5_000) do
      {:ok, {:http_header, _, _, _, _}} -> headers(client)
      {:ok, :http_eoh} -> :ok
      _ -> :error
    end
  end
end
