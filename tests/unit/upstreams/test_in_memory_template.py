from penstock.upstreams.in_memory_template import Template


def test_variables_are_read_where_they_stand() -> None:
    template = Template("x://{kind}/a.b/{id}")
    assert template.match("x://notes/a.b/7") == {"kind": "notes", "id": "7"}
    assert template.match("x://notes/a.b/7/8") is None
    assert template.match("x://notes/aXb/7") is None
    assert template.match("x:///a.b/7") is None
    assert repr(template) == "<Template x://{kind}/a.b/{id}>"


def test_a_template_without_variables_is_itself() -> None:
    assert Template("x://a").match("x://a") == {}
