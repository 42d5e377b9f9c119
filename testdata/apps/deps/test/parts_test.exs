defmodule PartsTest do
  use ExUnit.Case, async: true

  test "each kind of dependency answers" do
    report = Parts.report()
    assert report[:stylesheet] =~ ".highlight"
    assert report[:version] == {1, 18}
    assert [{"p", [], [{"em", [], ["hi"], %{}}], %{}}] = report[:html]
    assert report[:slug] == "bucher-mehr"
    assert report[:json] == ~s({"env":"test"})
    assert report[:stamp] == "stamped"
  end
end
