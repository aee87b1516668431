// avxvnni_evex.cpp: the kernels of avxvnni.cpp for tests, see there.
#define LP_MODEL
#include "kernels/avxvnni.cpp"
