"""Writes tests/golden/chat.json: what transformers makes of chat templates written here in the styles of
ChatML, Llama 3, Gemma, Qwen 3 and Zephyr, and of one that prints values."""

import datetime
import json
import pathlib

from transformers.utils.chat_template_utils import _compile_jinja_template

ROOT = pathlib.Path(__file__).resolve().parents[2]
TODAY = datetime.datetime(2024, 7, 26)

SYSTEM = {"role": "system", "content": " You are <kind> & 'calm'. "}
USER = {"role": "user", "content": "Where is my bag?\n"}
ASSISTANT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is here; \\u003c é"}
THANKS = {"role": "user", "content": 'Thank "you"'}
CONVERSATIONS = [
    ([SYSTEM, USER], True),
    ([USER], True),
    ([SYSTEM, USER, ASSISTANT, THANKS], True),
    ([USER, ASSISTANT], False),
]

TEMPLATES = {}
TEMPLATES["chatml"] = r"""{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
        {{- '<|im_start|>system\nBe brief.<|im_end|>\n' }}
    {% endif %}
    {{- '<|im_start|>' + message.role + '\n' + message.content.strip() + '<|im_end|>' + '\n' }}
{% endfor %}
{% if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{% endif %}
"""
TEMPLATES["llama3"] = r"""{%- set ns = namespace(system='') -%}
{%- for m in messages if m.role == 'system' -%}
    {%- set ns.system = m.content | trim -%}
{%- endfor -%}
{{- bos_token -}}
{%- if not date is defined -%}
    {%- set date = strftime_now("%d %b %Y") if strftime_now is defined else 'no date' -%}
{%- endif -%}
{{- "<|start_header_id|>system<|end_header_id|>\n\nToday: " ~ date ~ "\n" ~ ns.system ~ "<|eot_id|>" -}}
{%- for m in messages -%}
    {%- if m.role == 'system' -%}{%- continue -%}{%- endif -%}
    {%- generation -%}
    {{- "<|start_header_id|>" ~ m['role'] ~ "<|end_header_id|>\n\n" ~ m['content'] | trim ~ "<|eot_id|>" -}}
    {%- endgeneration -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "<|start_header_id|>assistant<|end_header_id|>\n\n" -}}
{%- endif -%}
"""
TEMPLATES["gemma"] = r"""{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first = messages[0].content | trim + '\n\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set first, turns = '', messages -%}
{%- endif -%}
{%- for turn in turns -%}
    {%- if (turn.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('roles must take turns') }}
    {%- endif -%}
    {{ '<start_of_turn>' ~ ('model' if turn.role == 'assistant' else turn.role) ~ '\n' ~ (first if loop.first) }}
    {%- if turn.content is string %}{{ turn.content | trim }}{% else %}{{ turn.content | length }}{% endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}
"""
TEMPLATES["qwen3"] = r"""{%- set ns = namespace(last=messages|length - 1) %}
{%- for m in messages[::-1] if m.role == 'user' %}
    {%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- break %}
{%- endfor %}
{%- for m in messages %}
    {%- set said = m.content.split('</think>')[-1].lstrip('\n') if m.role == "assistant" and '</think>' in m.content else m.content %}
    {{- '<|im_start|>' + m.role + '\n' + said + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""
TEMPLATES["zephyr"] = r"""{% macro turn(role, text, end=eos_token) %}
<|{{ role }}|>
{{ text }}{{ end }}
{% endmacro %}
{# a remark #}
{% for message in messages %}
{% if message.role not in ['system', 'user', 'assistant'] %}
{{ raise_exception('unknown role ' ~ message.role) }}
{% elif message.content is none %}
nothing
{% endif %}
{{ turn(message.role, text=message.content) }}
{%- if loop.last and add_generation_prompt %}
<|assistant|>
{% endif %}
{% endfor %}
"""
TEMPLATES["values"] = r"""{% set seen = {'b': 1, 'a': [true, none, 0.5, "it's", (1,), 1e20, -3]} %}
{{ seen }} {{ seen | tojson }} {{ seen.a[0] }} {{ none }} [{{ nothing }}] {{ tools is none }}
{{ messages[-1].content.split(' ')[0] }} {{ messages[1:] | length }} {{ seen | tojson(indent=2) }}
  {%+ if true %} kept{% endif +%}

{{ 'abc'[::-1] }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 'a' * 3 }} {{ [1] + [2] }}
{{ 'one two' | title }} {{ 'x,y' | replace(',', ';') | upper }} {{ [3, 1] | join('-') }} {{ 'ab' in 'cab' }}
{% for key, value in {'z': 1, 'Y': 2} | dictsort %}{{ key }}={{ value }}{{ ', ' if not loop.last }}{% endfor %}

{% for n in range(2, 8, 3) %}{{ loop.index }}:{{ n }}:{{ loop.previtem }} {% else %}none{% endfor %}

{% set block %}<{{ 1 + 1 }}>{% endset %}{{ block }} {{ messages | map(attribute='role') | list | tojson }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ '\u00e9\x41\n' | tojson }} {{ 1 < 2 <= 2 }} {{ not none is defined }}"""


def main():
    cases = []
    for name, source in TEMPLATES.items():
        template = _compile_jinja_template(source)
        template.environment.globals["strftime_now"] = TODAY.strftime
        for messages, prompt in CONVERSATIONS:
            text = template.render(
                messages=messages,
                add_generation_prompt=prompt,
                bos_token="<s>",
                eos_token="</s>",
                tools=None,
                documents=None,
                enable_thinking=False,
            )
            case = {"name": name, "messages": messages, "add_generation_prompt": prompt, "text": text}
            cases.append(case)
    golden = {"templates": TEMPLATES, "cases": cases}
    path = ROOT / "tests/golden/chat.json"
    path.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")


main()
