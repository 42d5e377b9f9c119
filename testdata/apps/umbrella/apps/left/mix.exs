defmodule Left.MixProject do
  use Mix.Project

  def project do
    [
      app: :left,
      version: "0.3.0",
      build_path: "../../_build",
      config_path: "../../config/config.exs",
      deps_path: "../../deps",
      lockfile: "../../mix.lock",
      elixir: "~> 1.14",
      compilers: [:nif] ++ Mix.compilers(),
      deps: [{:shared_parts, path: "../../shared_parts"}]
    ]
  end

  def application, do: [extra_applications: [:logger]]
end

defmodule Mix.Tasks.Compile.Nif do
  @moduledoc "Makes `priv/left.so` with make and the C compiler, into the build of the current environment."
  use Mix.Task.Compiler

  # Once for each app that lists it, not once for the umbrella.
  @recursive true

  @impl true
  def run(_args) do
    priv = Path.join(Mix.Project.app_path(), "priv")
    File.mkdir_p!(priv)
    include = Path.join(:code.root_dir(), "usr/include")
    env = [{"PRIV", priv}, {"ERL_INCLUDE", include}]

    case System.cmd("make", ["-s"], cd: Path.expand("c_src", __DIR__), env: env, into: IO.stream(), stderr_to_stdout: true) do
      {_, 0} -> {:ok, []}
      {_, status} -> Mix.raise("make failed with status #{status}")
    end
  end
end
