#!/usr/bin/env python3
"""Token ids of texts with special tokens, odd spaces and rare characters, for tests/unit/test_tokenizer.c.

usage: make_tokenizer.py TOKENIZER_DIR OUT.json     needs transformers, tokenizers
"rows" are what GemmaTokenizerFast gives; "cut" what the same tokenizer gives with <bos> and <eos> around the
text and truncation to max ids.
"""
import json
import os
import random
import sys

import tokenizers
import transformers
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import GemmaTokenizerFast

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
FIXED = SPECIAL + [
    "a<eos>b", "<start_of_turn>user\nhi<end_of_turn>", "<bos><bos> x", "< mask>", "<<eos>>", " <eos> ", "<eos",
    "<start_of_turn<end_of_turn>>", "<start_of_turn><eos", "<EOS>", "▁a ▁b", "▁", "▁▁ ▁", "red<mask>heart", "red <mask> heart",
    "  two  spaces ", "tab\tnewline\n\n\nend", "\r\n", "<0x0A>", "<unk><unk>日本<unk>", "é e\u0301", "👩‍👩‍👧‍👦 family", "🙂<eos>🙂",
    "\u200b zero \ufeff width", "\U0010ffff", "ﬁ ligature ①", "a" * 200, " " * 50, "<eos>" * 20, "\x01\x7f", "<s></s>",
    "1234567890", "x<pad>", "<pad>x", "�",
]
ALPHABET = SPECIAL + ["red", " heart", "a", "b", " ", "  ", "\n", "▁", "<", ">", "eos", "é", "日", "🙂", "\u0301", "<eos", "0", "12",
                      " picture of", ",", "'s", "\t", "ß", "Ω", "\u00a0"]


def main():
    path, out_path = sys.argv[1:3]
    fast = GemmaTokenizerFast.from_pretrained(path)
    rng = random.Random(5)
    texts = FIXED + ["".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 12))) for _ in range(250)]
    rows = [{"text": t, "ids": fast(t)["input_ids"]} for t in texts]

    raw = Tokenizer.from_file(os.path.join(path, "tokenizer.json"))
    raw.post_processor = TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)])
    cut = []
    for text in ["", "red heart", "a picture of a rocket", "日本"]:
        for limit in range(2, 10):
            raw.enable_truncation(limit)
            cut.append({"text": text, "max": limit, "ids": raw.encode(text).ids})
    head = {"made_by": "tests/ref/make_tokenizer.py", "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__}
    with open(out_path, "w", encoding="utf-8") as out:
        out.write(json.dumps(head)[:-1] + ', "rows": [\n' + ",\n".join(map(json.dumps, rows)))
        out.write('\n], "cut": [\n' + ",\n".join(map(json.dumps, cut)) + "\n]}\n")


main()
