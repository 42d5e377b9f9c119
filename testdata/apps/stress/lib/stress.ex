defmodule Stress do
  @moduledoc """
  What is known to come out differently each time when it is compiled side by side; the modules `Stress.M1` and so on are
  made from `module.ex.in` by the tests.
  """

  @built_at DateTime.utc_now()
  @year elem(:calendar.universal_time(), 0) |> elem(0)
  @host :inet.gethostname() |> elem(1) |> to_string()
  @cwd File.cwd!()
  @zone System.get_env("TZ")
  @user System.get_env("USER")

  def facts, do: {@built_at, @year, @host, @cwd, @zone, @user}

  def main do
    modules = Enum.filter(Application.spec(:stress, :modules), &(Code.ensure_loaded?(&1) and function_exported?(&1, :check, 0)))
    IO.puts("#{length(modules)} modules, #{Enum.sum(Enum.map(modules, & &1.check()))}")
  end
end
