defmodule RightTest do
  use ExUnit.Case, async: true

  test "the halves know each other" do
    assert Right.report() == "left right 42 test"
  end
end
