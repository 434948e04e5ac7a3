"""Makes of a GGUF what vLLM serves: weights in safetensors, and a tokenizer.

convert.py FILE.gguf DIRECTORY
"""
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

source, out = sys.argv[1:]
where = {"pretrained_model_name_or_path": os.path.dirname(os.path.abspath(source)), "gguf_file": os.path.basename(source)}
AutoTokenizer.from_pretrained(**where).save_pretrained(out)
model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
# The weights were made into floats while they were read; that they once were not is
# nothing that the new model has to know.
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
model.config.dtype = "float32"
model.config.save_pretrained(out)
tied = model.config.tie_word_embeddings
save_file({k: v.float().contiguous().clone() for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")},
          os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
