defmodule Hello.Application do
  @moduledoc "Starts the endpoint, unless the tests run."
  use Application

  @impl true
  def start(_type, _args) do
    children = if Application.get_env(:hello, :serve, true), do: [Hello.Endpoint], else: []
    Supervisor.start_link(children, strategy: :one_for_one, name: Hello.Supervisor)
  end
end
