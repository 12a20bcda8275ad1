"""Chat templates that a recipe can name, in transformers' Jinja.

Sources: the Alpaca repository's prompt, OpenAI's ChatML, the model cards of EXAONE 3.5, Llama 3 and Mistral 7B Instruct
v0.1. Each takes messages with the roles system, user and assistant, and `add_generation_prompt`.
"""

from __future__ import annotations

from typing import NamedTuple


class ChatText(NamedTuple):
    """A template, and the special tokens that it writes; a vocabulary without them splits them into pieces."""

    text: str
    tokens: tuple[str, ...] = ()


_ALPACA = """\
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {{- message['content'] | trim + '\\n\\n' -}}
  {%- else -%}
    {%- if loop.first -%}
      {{- 'Below is an instruction that describes a task. '
          'Write a response that appropriately completes the request.\\n\\n' -}}
    {%- endif -%}
    {%- if message['role'] == 'user' -%}
      {{- '### Instruction:\\n' + message['content'] | trim + '\\n\\n' -}}
    {%- else -%}
      {{- '### Response:\\n' + message['content'] | trim + (eos_token or '') + '\\n\\n' -}}
    {%- endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '### Response:\\n' -}}
{%- endif -%}
"""

_CHATML = """\
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

_EXAONE = """\
{%- if messages and messages[0]['role'] != 'system' -%}
  {{- '[|system|][|endofturn|]\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {{- '[|' + message['role'] + '|]' + message['content'] -}}
  {{- '\\n' if message['role'] == 'user' else '[|endofturn|]\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '[|assistant|]' -}}
{%- endif -%}
"""

_LLAMA3 = """\
{{- '<|begin_of_text|>' -}}
{%- for message in messages -%}
  {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
  {{- message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

_MISTRAL = """\
{{- bos_token or '' -}}
{%- set said = namespace(system='') -%}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {%- set said.system = message['content'] | trim + '\\n\\n' -%}
  {%- elif message['role'] == 'user' -%}
    {{- '[INST] ' + said.system + message['content'] | trim + ' [/INST]' -}}
    {%- set said.system = '' -%}
  {%- else -%}
    {{- ' ' + message['content'] | trim + (eos_token or '') -}}
  {%- endif -%}
{%- endfor -%}
"""

BUILTIN = {
    "alpaca": ChatText(_ALPACA),
    "chatml": ChatText(_CHATML, ("<|im_start|>", "<|im_end|>")),
    "exaone": ChatText(_EXAONE, ("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]")),
    "llama3": ChatText(_LLAMA3, ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "mistral": ChatText(_MISTRAL),
}
