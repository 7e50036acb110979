"""What sprout knows: words of the project, questions about it, and small talk."""

# term -> (other ways to say it, definition)
TERMS = {
    "cortex": ([], "Cortex is the gateway: one address that routes requests to the neurons."),
    "neuron": (["neuron daemon"], "A neuron is the daemon that runs models on one GPU host."),
    "sprout": (["the sample model"], "Sprout is the tiny sample model that ships with the project."),
    "step": ([], "A step is one pass of the engine over a batch of tokens."),
    "step plan": ([], "A step plan says how many tokens each request gets in the next step."),
    "step output": ([], "A step output holds the tokens that one step has sampled."),
    "token budget": ([], "The token budget is the most tokens that one step may compute."),
    "prefix cache": (["prefix caching"],
                     "The prefix cache reuses the computed state of prompts that start alike."),
    "state slot": ([], "A state slot holds the recurrent state of one running request."),
    "block table": ([], "A block table lists the cache blocks that a request owns."),
    "block": (["KV block", "cache block"], "A block holds the keys and values of a few tokens."),
    "slot mapping": ([], "A slot mapping says where each token's keys and values are written."),
    "checkpoint": ([], "A checkpoint is a saved recurrent state that a later prompt can start from."),
    "preemption": (["preempt"], "Preemption takes a request's memory and resumes it later."),
    "rank": ([], "A rank is one device's share of a model, on its own thread."),
    "world size": (["world_size"], "The world size is the number of ranks that serve one model."),
    "shard": ([], "A shard is the part of a weight that one rank holds."),
    "all-reduce": (["all reduce"], "An all-reduce adds up the partial results of all ranks."),
    "tensor parallelism": (["tensor parallel"],
                           "Tensor parallelism splits each layer of a model over several GPUs."),
    "executor": ([], "The executor runs the rank threads and hands them each step plan."),
    "engine": (["engine child"], "The engine is a child process that runs one loaded model."),
    "scheduler": ([], "The scheduler decides which requests get tokens in the next step."),
    "harness": ([], "A harness is what runs a model on a neuron, such as the native engine."),
    "dialect": ([], "A dialect is an HTTP API that clients speak, such as OpenAI or Anthropic."),
    "snapshot": ([], "A snapshot is an immutable picture of the fleet that decisions are made on."),
    "router": ([], "The router chooses the neuron that serves a request."),
    "evictor": (["eviction"], "The evictor unloads idle models to free memory for others."),
    "placement": ([], "Placement chooses the neuron and devices on which a model is loaded."),
    "pinning": (["pin"], "Pinning keeps a model loaded on a neuron so that it is never evicted."),
    "drain": (["draining"], "To drain is to finish running requests and accept no new ones."),
    "model profile": ([], "A model profile says what the catalogue knows of a model."),
    "catalogue": (["models.toml"], "The catalogue models.toml lists the models and their needs."),
    "cortex.toml": ([], "The file cortex.toml configures the gateway and names its neurons."),
    "neuron.toml": ([], "The file neuron.toml configures the daemon of one GPU host."),
    "KV cache": (["key value cache"], "The KV cache holds keys and values of tokens already read."),
    "prefill": ([], "Prefill is the reading of the prompt before the first new token."),
    "decode": ([], "Decode is the making of new tokens, one step at a time."),
    "continuous batching": ([], "Continuous batching lets requests join and leave at every step."),
    "speculative decoding": (["speculation"],
                             "Speculative decoding drafts tokens cheaply and verifies them together."),
    "MTP head": (["mtp"], "The MTP head is a small layer that drafts the token after the next."),
    "CUDA graph": (["cuda graphs"], "A CUDA graph replays a whole decode step with one launch."),
    "Gated DeltaNet": (["GDN", "deltanet"],
                       "Gated DeltaNet is linear attention with a recurrent state of fixed size."),
    "TTFT": (["time to first token"], "TTFT is the time from a request to its first token."),
    "ITL": (["inter-token latency"], "ITL is the time between two tokens of a stream."),
    "TPOT": (["time per output token"], "TPOT is the mean time per output token."),
    "GGUF": (["gguf file"], "GGUF is a file format for quantised models."),
    "NCCL": ([], "NCCL is the library that moves data between GPUs."),
    "kernel": (["CUDA kernel"], "A kernel is a function that runs on the GPU."),
    "backend": ([], "A backend carries out the operations of a model on the CPU or on CUDA."),
    "xtask": ([], "Xtask is the project's own tool for the demo, tidy checks and packaging."),
    "testkit": ([], "Testkit holds fakes and tiny models that the tests use."),
    "finish reason": ([], "The finish reason says why an answer ended, such as stop or length."),
}

# Questions that share one answer.
QUESTIONS = {
    "Cortex listens on port 31313.": [
        "which port does cortex use", "what port does cortex listen on", "what is the cortex port",
        "on which port is the gateway", "where does cortex listen"],
    "Neuron listens on port 13131.": [
        "which port does neuron use", "what port does neuron listen on", "what is the neuron port",
        "on which port is the daemon", "where does neuron listen"],
    "Cortex serves its metrics on port 31314.": [
        "which port serves the metrics", "where are the cortex metrics", "what is the metrics port",
        "on which port does cortex serve metrics"],
    "Send POST /models/load with a model_id to the neuron.": [
        "how do I load a model", "how can I load a model on a neuron", "how is a model loaded",
        "what do I send to load a model", "which route loads a model"],
    "Send POST /models/unload with a model_id to the neuron.": [
        "how do I unload a model", "how can I unload a model", "how is a model unloaded",
        "what do I send to unload a model", "which route unloads a model"],
    "Send GET /models to the neuron.": [
        "how do I list the models of a neuron", "which route lists the models of a neuron",
        "how can I see the models on a neuron", "how do I see what a neuron has loaded"],
    "Send GET /v1/models to cortex.": [
        "how do I list all models", "how can a client list the models", "which route lists all models",
        "how do I see every model of the fleet"],
    "Send GET /discovery to the neuron.": [
        "how do I see the hardware of a neuron", "which route tells the GPUs of a host",
        "how does cortex learn the hardware", "how do I list the GPUs of a neuron"],
    "Send GET /health.": [
        "how do I check the health", "which route tells the health", "how do I know if it is healthy",
        "what is the health check route"],
    "Send GET /models/{id}/endpoint to the neuron.": [
        "how do I find the endpoint of a model", "which route tells where a model is served",
        "how does the router find a model"],
    "Send POST /v1/chat/completions with model and messages.": [
        "how do I chat with a model", "which route is for chat", "how do I send a chat request",
        "what is the chat completions route"],
    "Send POST /v1/messages with model, messages and max_tokens.": [
        "which route speaks the Anthropic dialect", "how do I use the Anthropic API",
        "what is the Anthropic messages route"],
    "Set stream to true in the request.": [
        "how do I stream an answer", "how do I turn on streaming", "how can I get a stream",
        "how do I get tokens as they come"],
    "The command cargo demo starts cortex and a neuron with sprout on this machine.": [
        "what does cargo demo do", "what is cargo demo", "what happens when I run cargo demo",
        "explain the command cargo demo"],
    "Run cargo demo.": [
        "how do I start the demo", "how can I try the project", "how do I run the demo",
        "what is the quickest way to try it", "which command starts the demo"],
    "Run cargo test.": [
        "how do I run the tests", "which command runs the tests", "how can I test the project"],
    "Run cortex serve.": [
        "how do I start cortex", "which command starts the gateway", "how is cortex started"],
    "Run neuron serve.": [
        "how do I start a neuron", "which command starts the daemon", "how is neuron started"],
    "Run neuron doctor.": [
        "how do I check a GPU host for problems", "which command checks a host",
        "how do I find out what is wrong with a host"],
    "Run cortex check-config.": [
        "how do I check cortex.toml", "which command checks the gateway configuration",
        "how can I test the cortex config"],
    "Run neuron check-config.": [
        "how do I check neuron.toml", "which command checks the daemon configuration",
        "how can I test the neuron config"],
    "Run neuron plan with the name of the model.": [
        "how do I know if a model fits", "which command plans the memory of a model",
        "how can I see the memory a model needs"],
    "Run cortex status.": [
        "how do I see the state of the fleet", "which command shows the fleet",
        "how can I see all nodes"],
    "Run cortex drain with the name of the neuron.": [
        "how do I drain a neuron", "which command drains a node", "how can I drain a host"],
    "Add a [[neurons]] entry with name and endpoint to cortex.toml.": [
        "how do I add a neuron", "how can I add a host to the fleet", "how does cortex know its neurons",
        "what do I write to add a GPU host"],
    "List the model under pinned_on in models.toml.": [
        "how do I pin a model", "how can I keep a model loaded", "where do I pin a model"],
    "It is written in Rust.": [
        "what language is the project written in", "which language is it written in",
        "is it written in Python", "what is cortex written in", "what is neuron written in"],
    "The licence is MIT or Apache 2.0, as you like.": [
        "what is the licence", "which license does it have", "under which licence is the project",
        "how is the project licensed"],
    "Without a GPU the models run on the CPU.": [
        "does it need a GPU", "can it run without a GPU", "does it work on a CPU",
        "what happens without a GPU"],
    "It answers with status 404.": [
        "what happens if the model is unknown", "which status has an unknown model",
        "what is the answer for a model that does not exist"],
    "It answers with status 503 and a Retry-After header.": [
        "what happens when it is overloaded", "which status means overloaded",
        "what is the answer when it is full"],
    "Cortex forwards the bytes of a stream unchanged.": [
        "does cortex change the stream", "what does cortex do with a stream",
        "does the gateway translate the answers"],
    "The recurrent state is kept in f32.": [
        "which type has the recurrent state", "in which precision is the recurrent state"],
    "The native harness, mistral.rs, llama-server and vLLM.": [
        "which harnesses are there", "what harnesses does neuron have", "name the harnesses"],
    "A stream ends with data: [DONE].": [
        "how does an OpenAI stream end", "what is the last line of a stream",
        "how do I know that a stream is over"],
    "I am sprout, a tiny sample model.": [
        "who are you", "what are you", "what is your name", "what model are you",
        "what is this model", "are you a person", "introduce yourself"],
    "I have about two and a half million parameters.": [
        "how big are you", "how many parameters do you have", "what is your size",
        "how large is this model"],
    "I can answer questions about the project, copy, count, remember and call tools.": [
        "what can you do", "what are you able to do", "how can you help me", "help",
        "what should I ask you"],
}

SMALL_TALK = {
    "Hello! I am sprout. How can I help?": [
        "hello", "hi", "hey", "hi there", "hello there", "good morning", "good evening",
        "hello sprout", "hey sprout", "greetings"],
    "You are welcome.": ["thanks", "thank you", "thanks a lot", "thank you very much", "thx"],
    "Goodbye!": ["bye", "goodbye", "see you", "good night", "see you later"],
    "I am well, thank you.": ["how are you", "how are you doing", "are you well", "how do you feel"],
    "Yes, I am here.": ["are you there", "are you awake", "is anybody there", "ping", "test"],
    "Great!": ["that worked", "it works", "well done", "good job", "nice"],
}

UNKNOWN = "I do not know that. I am only a tiny sample model."
UNKNOWN_FORMS = [
    "what is the capital of {city}", "who wrote {thing}", "how old is {name}",
    "what is the meaning of {thing}", "where is my {thing}", "why is the {thing} {colour}",
    "tell me a story about a {animal}", "what do you think of {name}", "how do I cook {food}",
    "who is the best {job}", "what is the best {food} in {city}", "how far is {city} from here",
    "write a poem about {thing}", "when was {name} born", "who invented the {thing}",
    "do you like {food}", "what does a {animal} eat", "how many people live in {city}",
]

TERM_FORMS = [
    "what is a {t}", "what is {t}", "what's a {t}", "what's {t}", "what does {t} mean", "define {t}",
    "explain {t}", "explain {t} to me", "tell me what {t} is", "tell me about {t}", "describe {t}",
    "what do you know about {t}", "what is meant by {t}", "meaning of {t}", "{t}", "what is the {t}",
    "what does the word {t} mean", "give me a definition of {t}",
]

PREFIXES = ["", "", "", "", "", "", "Hi, ", "Please tell me: ", "Quick question: ", "Hello! ", "Hey, ",
            "I have a question: ", "Sprout, ", "One question: ", "I am new here. "]
SUFFIXES = ["", "", "", "", "", " Please.", " Thanks!", " Answer in one sentence."]
