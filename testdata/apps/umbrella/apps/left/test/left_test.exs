defmodule LeftTest do
  use ExUnit.Case, async: true

  test "the function in C answers" do
    assert Left.twice(21) == 42
  end
end
