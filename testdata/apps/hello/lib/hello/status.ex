defmodule Hello.Status do
  @moduledoc "HTTP's reason phrases, generated."
  require Hello.Table

  Hello.Table.table(:reason, [{200, "OK"}, {404, "Not Found"}], "Unknown")
end
