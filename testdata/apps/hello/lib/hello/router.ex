defmodule Hello.Router do
  @moduledoc "From a path to an answer."
  alias Hello.Response

  # Read while compiling, so that staging and prod hold different bytes.
  @stage Application.compile_env!(:hello, :stage)
  @greeting Application.compile_env!(:hello, :greeting)
  @built_for Mix.env()

  @doc "What this build was compiled for."
  def about do
    %{
      app: "hello",
      env: @built_for,
      stage: @stage,
      greeting: @greeting,
      version: :hello |> Application.spec(:vsn) |> to_string()
    }
  end

  def route("/"), do: about()
  def route("/health"), do: "ok\n"
  def route(_), do: %Response{status: 404, body: "no such page\n"}
end
