"""The folder ``ann_benchmarks/algorithms/vectordb_engine`` of ann-benchmarks: copy it there, then

python install.py --algorithm vectordb_engine && python run.py --algorithm vectordb_engine --dataset glove-100-angular
"""
